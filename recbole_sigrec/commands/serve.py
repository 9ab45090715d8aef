"""``recbole-sigrec serve``: a bundle that answers over HTTP."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser
from recbole_sigrec.extras import need
from recbole_sigrec.user_paths import user_path

ABOUT = """\
Answer over HTTP: recommendations, similar items and explanations as JSON, and a
page to look at them. With RECBOLE_SIGREC_API_KEY set, requests must give it in
the header X-API-Key. SIGHUP, or POST /reload, reads the bundle again."""


def parser() -> Parser:
    """The arguments of the command."""
    made = Parser("recbole-sigrec serve", ABOUT)
    made.add_argument("bundle", type=user_path, help="a bundle of recbole-sigrec export")
    made.once("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    made.once("--port", type=int, default=8000, help="default 8000; 0: a free one")
    made.once("--title", default="title", metavar="COLUMN", help="for the page; default title")
    made.once("--picture", default="picture", metavar="COLUMN", help="likewise; default picture")
    return made


def main(arguments: list[str]) -> int:
    """Serve; 0 when the process is told to end."""
    known = parser().parse_args(arguments)
    need("serve", "recbole-sigrec serve")
    from recbole_sigrec.service.server import serve

    serve(known.bundle, known.host, known.port, known.title, known.picture)
    return 0
