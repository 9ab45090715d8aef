"""Is a data set sound? Its sizes, its features, and whether the features belong to the items."""

from recbole_sigrec.inspection.alignment import Alignment, check_alignment
from recbole_sigrec.inspection.figures import as_text, inspect
from recbole_sigrec.inspection.page import as_page

__all__ = ["Alignment", "as_page", "as_text", "check_alignment", "inspect"]
