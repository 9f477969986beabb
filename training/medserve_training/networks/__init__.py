"""Networks, one module for each architecture, with the pre- and postprocessing that is exported with them."""
