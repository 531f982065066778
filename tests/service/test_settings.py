import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().cors_origins == ()
    monkeypatch.setenv("PIX2DSLR_CORS_ORIGINS", "https://a.example, http://localhost:5173,")
    assert Settings().cors_origins == ("https://a.example", "http://localhost:5173")
    monkeypatch.setenv("PIX2DSLR_CORS_ORIGINS", "*")
    assert Settings().cors_origins == ("*",)
    monkeypatch.setenv("PIX2DSLR_CORS_ORIGINS", "")
    assert Settings().cors_origins == ()


@pytest.mark.parametrize("origin", ["https://a.example/", "a.example", "https://a.example/page", "https://*.example"])
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=(origin,))


@pytest.mark.parametrize(("name", "value"), [("threads", 10**20), ("threads", 1025), ("batch_sizes", (1, 1 << 20))])
def test_a_slip_of_the_finger_does_not_eat_the_machine(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})  # type: ignore[arg-type]
