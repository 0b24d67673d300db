"""One self-contained HTML file out of a template, data and scripts, under a policy that lets in nothing else."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup


def render_page(
    package: str,
    template: str,
    *,
    scripts: Sequence[str] = (),
    data: Any = None,
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **context: Any,
) -> str:
    """The text of a page.

    Its policy forbids every address, every frame and every form, and lets run one script alone: this one, known by its
    hash. Texts in the context are escaped.

    Args:
        package: that holds template and scripts, such as `weightspace.decompiler`.
        template: name of a file that extends `base.html`.
        scripts: names of files that become the page's one script, in this order; a name with a colon is of another
            package, such as `weightspace.pages:address.js`.
        data: JSON-serialisable, for the script, which finds it by the identifier `data`; None for none.
        filters: more filters of the template, by name.
        context: what the template names.
    Raises:
        ValueError: if a script could end its own element, or the data holds what JSON does not.
    """
    files = {name: _text(package, name) for name in scripts}
    script = "\n".join(['"use strict";', *files.values()]) if files else ""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError(f"a script of {package} holds </script or <!--, which would end its element")
    loader = DictLoader({"base.html": _text("weightspace.pages", "base.html"), template: _text(package, template)})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= dict(filters or {})
    return environment.get_template(template).render(
        policy=policy(script),
        shared_style=Markup(_text("weightspace.pages", "page.css")),
        data_element=None if data is None else embedded(data),
        script=Markup(script),
        **context,
    )


def policy(script: str) -> str:
    """The content security policy of a page: nothing but its own styles, images in it, and this very script.

    Styles stand in attributes too, those of matplotlib's pictures, so that no hash can name them all.
    """
    allowed = f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def embedded(data: Any) -> Markup:
    """JSON that can stand in a script element, whatever texts are in it: no letter of it is markup.

    Raises:
        ValueError: if it holds a NaN or an infinity.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _text(package: str, name: str) -> str:
    package, _, name = name.rpartition(":") if ":" in name else (package, "", name)
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
