"""The reference of the config keys, made from their declarations and the property files.

``.. config-keys::`` writes a section for each role and one for the keys of models; each key is a
``confval``, so that pages can link to it and the inventory counts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recbole
import yaml
from docutils import nodes
from recbole.config import Config as RecBoleConfig
from sphinx.application import Sphinx
from sphinx.util.rst import escape

from extension.recbole_keys import MEANINGS
from extension.sections import SectionsDirective, indented
from recbole_sigrec.config.idle_keys import NOT_SET_HERE
from recbole_sigrec.config.keys import PICKLED, UNTYPED, Keys, PluginKeys, RecBoleKeys
from recbole_sigrec.config.property_files import property_root
from recbole_sigrec.config.registry import resolve_model
from recbole_sigrec.model_names import MODELS

SHARED = (PluginKeys, RecBoleKeys)
ROLES = {
    "model": "Training",
    "data": "Data",
    "split": "Split",
    "evaluation": "Evaluation",
    "machine": "Machine",
}
"""Role → title of its section. A key that has several stands in the first of its own."""

NOTHING = object()


@dataclass(frozen=True)
class Declaration:
    """How one class of keys declares a key."""

    meaning: str
    type: str


def declaration(keys: type[Keys], key: str) -> Declaration:
    """A key's meaning and its type with its range, as the class declares them."""
    schema = keys.model_json_schema()
    field = schema["properties"][key]
    return Declaration(field["description"], type_text(field, schema.get("$defs", {})))


def type_text(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    """A JSON schema in words.

    Args:
        schema: of a value.
        parts: the schemas that it may refer to.
    """
    if "$ref" in schema:
        return type_text(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in schema:
        return " or ".join(type_text(one, parts) for one in schema["anyOf"])
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if choices:
        return ", ".join(literal(choice) for choice in choices)
    kind = schema.get("type")
    if kind == "array":
        return f"list of {type_text(schema.get('items', {}), parts)}" + bounds(
            schema, "Items", " of them"
        )
    if kind == "object" and "properties" in schema:
        inner = schema["properties"].items()
        return "; ".join(f"{literal(name)}: {type_text(one, parts)}" for name, one in inner)
    if kind == "object":
        values = schema.get("additionalProperties", True)
        return f"dictionary, name → {type_text({} if values is True else values, parts)}"
    names = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
    text = names.get(str(kind), "none" if kind == "null" else "any value")
    return text + bounds(schema) + bounds(schema, "Length", " characters")


def literal(value: object) -> str:
    """A value as it is written in YAML, as reStructuredText."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True)
    return f"``{text.removesuffix(chr(10)).removesuffix('...').strip() or ' '}``"


def bounds(schema: dict[str, Any], what: str = "imum", unit: str = "") -> str:
    """The range of a schema's values, lengths or items; nothing where there is none."""
    words = {
        f"min{what}": "at least",
        f"exclusiveMin{what}": "above",
        f"max{what}": "at most",
        f"exclusiveMax{what}": "below",
    }
    found = {word: schema[name] for name, word in words.items() if name in schema}
    if not unit:
        return "".join(f", {word} {value:,}" for word, value in found.items())
    if len(set(found.values())) == 1 and len(found) == 2:
        return f", {next(iter(found.values()))}{unit}"
    return "".join(f", {word} {value}{unit}" for word, value in found.items() if value > 1)


def property_values(file: Path) -> dict[str, Any]:
    """The values in a property file; RecBole's are read as RecBole reads them."""
    loader = RecBoleConfig._build_yaml_loader(None)  # pyright: ignore[reportArgumentType]
    return (yaml.load(file.read_text("utf-8"), Loader=loader) or {}) if file.is_file() else {}


def defaults_of_all() -> dict[str, Any]:
    """The default of each key in RecBole's property files and in ours, which win."""
    theirs = Path(recbole.__file__).parent / "properties"
    found: dict[str, Any] = {}
    for file in (
        theirs / "overall.yaml",
        theirs / "dataset/sample.yaml",
        property_root() / "overall.yaml",
    ):
        found |= property_values(file)
    return found


def shared_keys() -> dict[str, tuple[type[Keys], str]]:
    """The keys that are not a model's: key → (its class, its first role)."""
    return {
        name: (keys, field.json_schema_extra["roles"][0])  # pyright: ignore
        for keys in SHARED
        for name, field in keys.model_fields.items()
    }


def model_keys() -> dict[str, dict[Declaration, dict[str, Any]]]:
    """The keys of models: key → declaration → model → default."""
    found: dict[str, dict[Declaration, dict[str, Any]]] = {}
    for model in MODELS:
        keys = resolve_model(model).Keys
        given = property_values(property_root() / f"model/{model}.yaml")
        for key, field in keys.model_fields.items():
            default = given.get(key, NOTHING if field.is_required() else field.default)
            found.setdefault(key, {}).setdefault(declaration(keys, key), {})[model] = default
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def default_text(value: Any) -> str:
    """A default in words; nothing where there is none."""
    if value is NOTHING:
        return ""
    return "none" if value is None else literal(value)


def confval(key: str, text: str, type_: str = "", default: str = "") -> str:
    """The entry of a key."""
    options = {"type": type_, "default": default}
    lines = [f".. confval:: {key}", *(f"   :{k}: {v}" for k, v in options.items() if v), ""]
    return "\n".join(lines) + "\n" + indented(text) + "\n\n"


def shared_entries(role: str) -> Iterator[str]:
    """The entries of the keys with this first role, and of RecBole's keys that have it."""
    defaults, typed = defaults_of_all(), shared_keys()
    for key, (keys, own) in sorted(typed.items(), key=lambda item: item[0].lower()):
        if own == role:
            told = declaration(keys, key)
            default = default_text(defaults.get(key, NOTHING))
            yield confval(key, sentence(told.meaning), told.type, default)
    for key in sorted(UNTYPED.keys() - typed.keys() - {*NOT_SET_HERE, *PICKLED}, key=str.lower):
        if (UNTYPED[key][0] if key != "model" else "model") == role:
            text = f"{sentence(MEANINGS[key])} As in RecBole."
            yield confval(key, text, "", default_text(defaults.get(key, NOTHING)))


def model_entries() -> Iterator[str]:
    """The entries of the models' keys, each with the models that read it and their defaults."""
    shared = shared_keys()
    for key, told in model_keys().items():
        if key in shared:
            continue
        text = []
        for one, models in told.items():
            by_default: dict[str, list[str]] = {}
            for model, value in models.items():
                link = f":py:class:`~recbole_sigrec.{model}`"
                by_default.setdefault(default_text(value), []).append(link)
            own = "; ".join(f"{value}: {', '.join(who)}" for value, who in by_default.items())
            many = f" Type: {one.type}." if len({d.type for d in told}) > 1 else ""
            text.append(f"{sentence(one.meaning)}{many}\n\n   Default {own}.")
        types = {one.type for one in told}
        if len(text) == 1:
            body = text[0].replace("\n   ", "\n")
        else:
            body = "\n".join(f"#. {entry}" for entry in text)
        yield confval(key, body, types.pop() if len(types) == 1 else "")


def refused_entries() -> Iterator[str]:
    """The keys that a configuration may not set, each with what to give instead."""
    for key in sorted({*NOT_SET_HERE, *PICKLED}, key=str.lower):
        instead = NOT_SET_HERE.get(key, "a pickle can run code when it is read")
        yield confval(key, f"Refused: {escape(instead)}.")


def sentence(text: str) -> str:
    """A meaning as a sentence of reStructuredText."""
    whole = escape(text[0].upper() + text[1:] if text[1:2].islower() else text)
    return whole if whole.endswith(".") else whole + "."


class ConfigKeys(SectionsDirective):
    """``.. config-keys::``: all sections, see the module."""

    def run(self) -> list[nodes.Node]:
        """Write them."""
        made = [self.section(t, "".join(shared_entries(role))) for role, t in ROLES.items()]
        made.append(self.section("Keys of models", "".join(model_entries())))
        made.append(self.section("Keys that are refused", "".join(refused_entries())))
        return list(made)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("config-keys", ConfigKeys)
    return {"parallel_read_safe": True}
