"""Fonts that draw a sheet's texts, and what is said of characters that none draws."""

import shutil
import sys
from pathlib import Path

import pytest
from support.fonts import LATIN, make_font

from rm_voucher import ConfigurationError
from rm_voucher.cli.prints import fonts
from rm_voucher.cli.prints.fonts import bold_of, choose, fixed_width, in_words


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose fonts are those of one folder."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(fonts, "_OTHER_FOLDERS", (str(folder),))
    monkeypatch.setitem(fonts._FOLDERS, sys.platform, (str(folder),))
    return folder


def chosen(text: str, **options) -> tuple[list[str], str]:
    found = choose(text, **options)
    return [face.path.name for face in found.faces], found.missing


def test_as_many_fonts_as_it_takes(machine: Path) -> None:
    """The main one first, then one for each script that it does not have."""
    make_font(machine / "Another.ttf", LATIN)
    make_font(machine / "DejaVuSans.ttf", LATIN)
    make_font(machine / "NotoSansTamil-Regular.ttf", "தமிழ்")
    make_font(machine / "Chinese.ttf", "陈美玲")
    make_font(machine / "Unneeded.ttf", "Ω")
    assert chosen("Ana தமிழ் 陈\u200d") == (
        ["DejaVuSans.ttf", "NotoSansTamil-Regular.ttf", "Chinese.ttf"],
        "",
    )
    assert chosen("Ana") == (["DejaVuSans.ttf"], "")


def test_named_fonts_come_first(machine: Path, tmp_path: Path) -> None:
    """What they don't have, others draw."""
    make_font(machine / "DejaVuSans.ttf", LATIN + "Ω")
    own = make_font(tmp_path / "own.ttf", LATIN)
    assert chosen("AnaΩ", named=[own]) == (["own.ttf", "DejaVuSans.ttf"], "")


def test_what_no_font_draws(machine: Path) -> None:
    """It is said which characters, and what draws them."""
    make_font(machine / "DejaVuSans.ttf", LATIN)
    names, missing = chosen("Ana 陈美 த")
    assert (names, missing) == (["DejaVuSans.ttf"], "த美陈")
    assert in_words(missing) == (
        "No font of this machine draws த美陈 (Chinese, Tamil). Install one (on Debian and Ubuntu: "
        "apt install fonts-noto-cjk fonts-noto-core), name a font file with --font, or name an "
        "--output that ends in .html: a browser has its own fonts."
    )
    assert "美" * 12 + " and 1 more" in in_words("美" * 13)


def test_files_that_are_no_fonts(machine: Path, tmp_path: Path) -> None:
    """They are passed over, unless a person named them. So is a font that may not be copied."""
    (machine / "arial.ttf").write_bytes(b"no font")
    (machine / "notosans-regular.ttc").write_bytes(b"ttcf")
    make_font(machine / "liberationsans-regular.ttf", LATIN, fs_type=2)
    make_font(machine / "z.ttf", LATIN)
    assert chosen("Ana") == (["z.ttf"], "")
    for path in (machine / "arial.ttf", tmp_path / "nowhere.ttf", machine):
        with pytest.raises(ConfigurationError, match="is no font that can be put into a PDF"):
            choose("Ana", named=[path])


def test_bold_and_fixed_width(machine: Path) -> None:
    """They are found beside the others."""
    regular = make_font(machine / "NotoSans-Regular.ttf", LATIN)
    (face,) = choose("Ana", named=[regular]).faces
    assert bold_of(face) is None
    assert fixed_width() is None
    make_font(machine / "NotoSans-Bold.ttf", LATIN)
    make_font(machine / "DejaVuSansMono.ttf", LATIN)
    bold, fixed = bold_of(face), fixed_width()
    assert bold is not None
    assert bold.path.name == "NotoSans-Bold.ttf"
    assert fixed is not None
    assert fixed.path.name == "DejaVuSansMono.ttf"


@pytest.mark.skipif(shutil.which("fc-list") is None, reason="there is no fontconfig")
def test_fontconfig_is_asked() -> None:
    """It knows folders that nobody else knows."""
    assert all(path.suffix.lower() in {".ttf", ".otf", ".ttc", ".otc"} for path in fonts._files())
