"""Checks of settings, whose errors name the setting."""


def check_share(name: str, value: float) -> None:
    """Raise `ValueError` naming the setting unless the value is a share, 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raise `ValueError` naming the setting if the value is negative."""
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, not {value}")


def check_positive(name: str, value: float) -> None:
    """Raise `ValueError` naming the setting unless the value is above 0."""
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value}")
