"""Where keys are put: one module for each kind of store, all behind the port in `base`."""
