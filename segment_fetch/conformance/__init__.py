"""What every destination promises, as tests: for whoever writes a `Sink`. Needs pytest; nothing else imports this.

Subclass `Medium`, which knows where a sink stores things, and `SinkConformance`, whose tests pytest then collects:

    class TestMySink(SinkConformance):
        @pytest.fixture
        def medium(self, tmp_path):
            return MyMedium(tmp_path)
"""

from segment_fetch.conformance.medium import Medium, Record, as_columns, as_json
from segment_fetch.conformance.suite import SinkConformance
from segment_fetch.conformance.values import VALUES

__all__ = ["VALUES", "Medium", "Record", "SinkConformance", "as_columns", "as_json"]
