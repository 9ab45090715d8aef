"""Config: RecBole's Config with this plugin's models, property files and checked keys."""

from recbole_sigrec.config.config import Config
from recbole_sigrec.config.keys import AUTO, Auto, Keys, setting

__all__ = ["AUTO", "Auto", "Config", "Keys", "setting"]
