"""``recbole-sigrec models``: the models that can be named, and what they do."""

from __future__ import annotations

from recbole_sigrec.commands.arguments import Parser
from recbole_sigrec.display.terminal import text_table
from recbole_sigrec.model_names import KNOWN, REFUSED


def parser() -> Parser:
    """The arguments of the command."""
    about = "List the models of this plugin, and RecBole's."
    return Parser("recbole-sigrec models", about, "recbole-sigrec models")


def main(arguments: list[str]) -> int:
    """Print the list."""
    parser().parse_args(arguments)
    from recbole.model import general_recommender

    from recbole_sigrec.config.registry import known_models

    rows = [(name, known.published, known.about) for name, known in KNOWN.items()]
    print(text_table([("model", "published", "what it does"), *rows], align="l"))
    theirs = vars(general_recommender).keys() - KNOWN.keys() - REFUSED.keys()
    print(f"\nRecBole's: {', '.join(name for name in known_models() if name in theirs)}")
    return 0
