"""``recbole-sigrec serve``: a bundle that answers over HTTP."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser
from recbole_sigrec.extras import need
from recbole_sigrec.user_paths import user_path

ABOUT = """\
Answer over HTTP: recommendations, similar items and explanations as JSON, and a
page to look at them. With RECBOLE_SIGREC_API_KEY set, requests must give it in
the header X-API-Key. SIGHUP, or POST /reload, reads the bundle again."""


EXAMPLE = "recbole-sigrec serve shop.rec --port=8000"


def parser() -> Parser:
    """The arguments of the command."""
    made = Parser("recbole-sigrec serve", ABOUT, EXAMPLE)
    made.add_argument("bundle", type=user_path, help="a bundle of recbole-sigrec export")
    made.once("--host", default="127.0.0.1", help="default 127.0.0.1: only this machine")
    made.once("--port", type=int, default=8000, help="default 8000; 0: any free port")
    made.once("--title", default="title", metavar="COLUMN", help="the page's titles; default title")
    made.once(
        "--picture",
        default="picture",
        metavar="COLUMN",
        help="the page's pictures; default picture",
    )
    return made


def main(arguments: list[str]) -> int:
    """Serve; 0 when the process is told to end."""
    known = parser().parse_args(arguments)
    need("serve", "recbole-sigrec serve")
    from recbole_sigrec.service.server import serve

    serve(known.bundle, known.host, known.port, known.title, known.picture)
    return 0
