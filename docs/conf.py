"""Sphinx's configuration of the site: `sphinx-build -W --keep-going -n docs FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the extensions below

from recbole_sigrec import __version__

project = "recbole_sigrec"
author = "recbole_sigrec contributors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "extension.bars",
    "extension.commands",
    "extension.config_keys",
    "extension.mathml",
    "extension.models",
    "extension.public_names",
    "extension.repository_links",
]
exclude_patterns = ["extension"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # their output is kept; tests/docs/test_notebooks.py runs them

toc_object_entries_show_parents = "hide"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Shapes", "notes_style"), ("Cost", "notes_style")]

nitpick_ignore_regex = [
    # Other projects: the site is built without a network, so their inventories are not read.
    (r"py:.*", r"(?!recbole_sigrec\b).*"),
    # Internal modules and what is in them: a docstring may name them, and only the public names and
    # the building blocks of models have entries.
    (r"py:mod", r"recbole_sigrec\..+"),
    (r"py:.*", r"recbole_sigrec\.[a-z_]+\..+"),
]

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "recbole_sigrec"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
