"""Object stores by their URLs: what is one, whose credentials are used, and which addresses are asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from segment_fetch import DestinationError, InputError, MissingExtraError
from segment_fetch.sinks import JsonLines, ObjectSink
from segment_fetch.sinks.objects.stores import Place, place_of, store_of
from tests.conftest import Authority
from tests.support_objects import Answer, Bucket, Proxy, environment

SECRET = "s3cr3t-of-the-store"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket/a/b", Place("s3", "bucket", "a/b")),
        ("S3://bucket/a/b/", Place("s3", "bucket", "a/b")),
        ("s3://bucket", Place("s3", "bucket", "")),
        ("s3://bucket/", Place("s3", "bucket", "")),
        ("gs://my_bucket.example/a", Place("gs", "my_bucket.example", "a")),
        ("az://container/date=1/a b", Place("az", "container", "date=1/a b")),
    ],
)
def test_url_names_a_place(url: str, place: Place) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://", "write s3://bucket/prefix"),
        ("s3:///prefix", "write s3://bucket/prefix"),
        ("s3://-bucket/prefix", "write s3://bucket/prefix"),
        ("s3://buck et/prefix", "write s3://bucket/prefix"),
        ("gs://bucket/a//b", "write gs://bucket/prefix"),
        ("gs://bucket/../b", "write gs://bucket/prefix"),
        ("gs://bucket/a\nb", "write gs://bucket/prefix"),
        ("az://container/./b", "write az://bucket/prefix"),
        (f"s3://key:{SECRET}@bucket/prefix", "must hold no key, user name or password; set AWS_ACCESS_KEY_ID"),
        (f"az://container/prefix?sig={SECRET}", "must hold no key, user name or password; set AZURE_STORAGE"),
        (f"gs://bucket/prefix#{SECRET}", "must hold no key, user name or password; set GOOGLE_APPLICATION"),
        (f"ftp://{SECRET}", "begins with one of s3://, gs://, az://"),
    ],
)
def test_url_that_names_none_is_refused(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ObjectSink(url, JsonLines())
    assert SECRET not in str(caught.value)


ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}


@pytest.mark.parametrize("scheme", ENDPOINTS)
@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("http://store.example.com", "plain http would expose the data on the network; use https"),
        ("http://127.0.0.1.example.com", "plain http would expose"),
        (f"https://user:{SECRET}@store.example.com", "without user name, password or question mark"),
        (f"https://store.example.com?key={SECRET}", "without user name, password or question mark"),
        ("store.example.com", "write https://host"),
        ("https://[::1", "write https://host"),
    ],
)
def test_endpoint_that_would_leak_is_refused(scheme: str, endpoint: str, says: str) -> None:
    with pytest.raises(InputError, match=f"{ENDPOINTS[scheme]}.*{says}") as caught:
        store_of(Place(scheme, "bucket", "prefix"), {ENDPOINTS[scheme]: endpoint})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("attempts", ["0", "-1", "many", "1.5"])
def test_attempts_must_be_a_number(attempts: str) -> None:
    with pytest.raises(InputError, match="AWS_MAX_ATTEMPTS is not a number of attempts"):
        store_of(Place("s3", "bucket", ""), {"AWS_MAX_ATTEMPTS": attempts, "AWS_ACCESS_KEY_ID": "a"})


def test_attempts_are_made(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    bucket.proxy.fault = lambda asked: Answer(503, "SlowDown")
    with pytest.raises(DestinationError):
        ObjectSink(bucket.url, JsonLines()).open()
    assert len(bucket.proxy.asked) == 2


@contextmanager
def empty_store(monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> Iterator[Proxy]:
    """A server where nothing is there, which the environment names."""
    proxy = Proxy(0)
    proxy.fault = lambda asked: Answer(404, code)
    with proxy.running():
        monkeypatch.setenv(name, proxy.url)
        yield proxy


def test_google_is_asked_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    with empty_store(monkeypatch, "GOOGLE_BASE_URL", "NoSuchBucket") as store:
        with pytest.raises(DestinationError, match=r"^gs://bucket/a/b: there is no such bucket"):
            ObjectSink("gs://bucket/a/b", JsonLines()).open()
        assert ObjectSink("gs://bucket/a/b", JsonLines()).size("manifest.json") is None
    assert paths(store) == ["/bucket", "/bucket/a/b/manifest.json"]


def test_azure_is_asked_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    with empty_store(monkeypatch, "AZURE_STORAGE_ENDPOINT", "ContainerNotFound") as store:
        with pytest.raises(DestinationError, match=r"^az://container/a/b: there is no such bucket"):
            ObjectSink("az://container/a/b", JsonLines()).open()
        assert ObjectSink("az://container/a/b", JsonLines()).size("manifest.json") is None
    assert paths(store) == ["/container", "/container/a/b/manifest.json"]


def paths(store: Proxy) -> list[str]:
    """Return the requests, without their queries."""
    return [unquote(asked.path.partition("?")[0]) for asked in store.asked]


@pytest.mark.parametrize("name", ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"])
def test_settings_that_fit_no_account_are_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(other, raising=False)
    if name == "AZURE_STORAGE_ACCOUNT_KEY":
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv(name, f"{SECRET} is not base64")
    with pytest.raises(
        DestinationError, match="do not match any account: set AZURE_STORAGE_ACCOUNT_NAME and"
    ) as caught:
        ObjectSink("az://container/a", JsonLines())
    assert SECRET not in repr(caught.value)


def test_keys_of_a_profile_are_used(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = {SECRET}\n"
        f"[nightly]\naws_access_key_id = AKIANIGHTLY\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    environment_file(monkeypatch, file)
    ObjectSink(bucket.url, JsonLines()).open()
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    ObjectSink(bucket.url, JsonLines()).open()
    assert [asked.key for asked in bucket.proxy.asked] == ["AKIADEFAULT"] * 2 + ["AKIANIGHTLY"] * 2
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    with pytest.raises(DestinationError, match="the AWS profile has no credentials: set AWS_ACCESS_KEY_ID"):
        ObjectSink(bucket.url, JsonLines())


def environment_file(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_keys_of_the_environment_come_first(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = other\n")
    environment_file(monkeypatch, file)
    ObjectSink(bucket.url, JsonLines()).open()
    assert {asked.key for asked in bucket.proxy.asked} == {"AKIAEXAMPLE"}


@pytest.mark.parametrize(
    ("module", "url", "extra"),
    [
        ("obstore", "gs://bucket", "objects"),
        ("obstore.store", "s3://bucket", "objects"),
        ("boto3", "s3://bucket", "aws"),
    ],
)
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str, url: str, extra: str) -> None:
    environment(monkeypatch, AWS_PROFILE="nightly", AWS_ACCESS_KEY_ID="")
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'segment-fetch\[{extra}\]'"):
        ObjectSink(url, JsonLines())


def test_company_certificates_are_trusted(
    bucket: Bucket, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secured = Proxy(bucket.port, tls=authority.server)
    with secured.running():
        monkeypatch.setenv("AWS_ENDPOINT_URL", secured.url)
        with pytest.raises(DestinationError, match="did not answer"):
            ObjectSink(bucket.url, JsonLines()).open()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
        assert ObjectSink(bucket.url, JsonLines()).open() is None
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match=r"none\.pem cannot be read: No such file"):
        ObjectSink(bucket.url, JsonLines())
