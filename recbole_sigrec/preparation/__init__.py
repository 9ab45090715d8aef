"""Making a data-set folder: of a table, of another toolbox's folder, or of published files."""
