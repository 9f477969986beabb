"""The packaged recipes as TOML files, and their schema and loader."""
