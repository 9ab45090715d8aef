"""Reading tables: CSV, TSV, JSON lines and Parquet, in batches of rows."""
