"""Where the rows of a fit are: in windows of a memory map or of Parquet files, or on the workers of Dask."""
