"""A page runs its own script and no other, and data in it is never markup."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from weightspace.pages import page as pages
from weightspace.pages.page import embedded, policy, render_page


def test_embedded_data_cannot_end_its_element_and_comes_back_as_it_was() -> None:
    wild = {"</script><script>alert(1)</script>": ["<!--", "]]>", "&lt;", "\u2028", "'\"\\", "\u00e9\U0001f600"]}
    text = embedded(wild)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == wild


def test_data_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded([float("nan")])


def test_the_policy_names_one_script_by_its_hash_and_else_forbids_everything() -> None:
    own = base64.b64encode(hashlib.sha256(b"let x = 1").digest()).decode()
    assert f"script-src 'sha256-{own}'" in policy("let x = 1")
    assert "script-src 'none'" in policy("")
    for rule in (policy("let x = 1"), policy("")):
        assert rule.startswith("default-src 'none'") and "unsafe-eval" not in rule and "http" not in rule


def test_a_script_that_would_end_its_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"base.html": "{{ script }}", "page.html": "", "page.css": "", "evil.js": "'</SCRIPT>'"}
    monkeypatch.setattr(pages, "_text", lambda _, name: texts[name])
    with pytest.raises(ValueError, match="which would end its element"):
        render_page("any", "page.html", scripts=("evil.js",))


def test_our_scripts_make_no_markup_out_of_texts_and_ask_for_nothing() -> None:
    scripts = list(Path(pages.__file__).parents[1].glob("*/*.js"))
    assert len(scripts) >= 3
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch|XMLHttp|import\(", text
        )
        assert found is None, (script.name, found)
