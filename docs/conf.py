"""How Sphinx builds the site. ``nox -s docs`` runs it with warnings as errors."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import attrs
from docutils import nodes
from sphinx.addnodes import desc, literal_strong, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import rm_voucher

project = "rm-voucher"
version = release = rm_voucher.__version__
html_title = f"{project} {release}"
html_theme = "furo"
pygments_dark_style = "monokai"  # the default underlines the names of modules
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/favicon.svg"
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_heading_anchors = 3
highlight_language = "none"  # a block that names no language is a drawing

default_role = "py:obj"  # docstrings write names in single backticks
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "undoc-members": True,  # fields
    # Members are shown where they come from, but for the bases that are not public.
    "inherited-members": "BaseException, VoucherError, APIError, TokenSource, Transport, str",
}

log = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    app.add_directive("root-names", RootNames)
    app.connect("autodoc-process-signature", show_defaults)
    app.connect("autodoc-process-docstring", read_google_style)
    app.connect("doctree-read", do_not_link_type)
    app.connect("doctree-read", show_fields_once)
    app.connect("missing-reference", find_by_last_name)
    app.connect("html-page-context", lead_back_from_source)
    app.connect("env-check-consistency", check_nothing_is_missing)


class RootNames(SphinxDirective):
    """Document the public names of `rm_voucher` that come from the modules below it.

    So the reference has a page a topic, and a new name appears on one by itself.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        lines = [".. currentmodule:: rm_voucher"]
        for module in " ".join(self.content).split():
            for name in sorted(rm_voucher._HOMES[module].split(), key=str.lower):
                lines += ["", f".. auto{kind_of(getattr(rm_voucher, name))}:: {name}"]
        return self.parse_text_to_nodes("\n".join([*lines, ""]))


def kind_of(value: object) -> str:
    """Return how autodoc calls what a public name stands for."""
    if not inspect.isclass(value):
        return "function" if inspect.isfunction(value) else "data"
    return "exception" if issubclass(value, BaseException) else "class"


def show_defaults(
    app: Sphinx, what: str, name: str, obj: Any, options: object, arguments: str, returns: str
) -> tuple[str, str] | None:
    """Show the defaults of attrs classes, not how attrs spells them."""
    if not arguments:
        return None

    def default(match: re.Match[str]) -> str:
        return repr(attrs.fields_dict(obj)[match[1]].default)

    return re.sub(r"attr_dict\['(\w+)'\]\.default", default, arguments).replace(
        "NOTHING", "..."
    ), returns


def read_google_style(
    app: Sphinx, what: str, name: str, obj: Any, options: object, lines: list[str]
) -> None:
    """Read sections such as ``Args:``, and put the public bases of a class in front.

    The extension napoleon would do the former, and read "words: more words" below a field as a
    type and a text.
    """
    if what in ("class", "exception", "method", "function", "property"):
        # `Attributes:` becomes a list, because autodoc shows annotated fields by itself.
        config = Config(napoleon_use_ivar=True)
        lines[:] = str(GoogleDocstring(lines, config, app, what, name, obj, options)).split("\n")
    if what in ("class", "exception"):
        bases = [base.__name__ for base in obj.__bases__ if base.__name__ in rm_voucher.__all__]
        lines[:0] = [f"Bases: {', '.join(f'`{base}`' for base in bases)}", ""] if bases else []


def show_fields_once(app: Sphinx, doctree: nodes.document) -> None:
    """Take a field away that the docstring of its class describes; links to it lead there."""
    for owner in list(doctree.findall(desc)):
        described = {
            name.astext(): name.parent
            for field in owner.findall(nodes.field)
            if field[0].astext() == "Variables"
            for name in field.findall(literal_strong)
        }
        for member in [node for node in owner[-1] if isinstance(node, desc)]:
            name = member[0].get("fullname", "").rpartition(".")[2]
            if member["objtype"] == "attribute" and name in described and not len(member[-1]):
                described[name]["ids"] += member[0]["ids"]
                owner[-1].remove(member)


def do_not_link_type(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the built-in in ``type[APIError]`` from being taken for a field of that name."""
    for node in list(doctree.findall(pending_xref)):
        if (node["reftype"], node["reftarget"]) == ("class", "type"):
            node.replace_self(node.children)


def find_by_last_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Link a name that a docstring writes without its module, if there is one of that name."""
    if node.get("refdomain") != "py":
        return None
    wanted = "." + node["reftarget"].rpartition(".")[2]
    objects = env.domains.python_domain.objects
    found = [
        (name, entry)
        for name, entry in objects.items()
        if name.endswith(wanted) and not entry.aliased and entry.objtype != "attribute"
    ]
    if len(found) != 1:
        return None
    name, entry = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)


def lead_back_from_source(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Mend the links from source to reference.

    The extension viewcode takes all names of a file for those of the module that shows one of them.
    """
    objects = app.env.domains.python_domain.objects
    shown = {name for name, entry in objects.items() if entry.node_id == name}
    home = page.removeprefix("_modules/").replace("/", ".")

    def mend(link: re.Match[str]) -> str:
        path, name, text = link.groups()
        parts = name.split(".")
        names = [name, *(".".join([home, *parts[at:]]) for at in range(1, len(parts)))]
        found = next((known for known in names if known in shown), None)
        return f'<a class="viewcode-back" href="{path}#{found}">{text}</a>' if found else ""

    if page.startswith("_modules/"):
        back = r'<a class="viewcode-back" href="([^"#]*)#([^"]*)">(.*?)</a>'
        context["body"] = re.sub(back, mend, context["body"])


def check_nothing_is_missing(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn when a public name of a module in the reference is not documented there."""
    known: Any = env.domains.python_domain
    for module in known.modules:
        for name in importlib.import_module(module).__all__:
            if f"{module}.{name}" not in known.objects:
                log.warning("%s.%s is missing in the reference", module, name)
