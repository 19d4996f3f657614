"""The platform put together: the one package that knows the control plane and every driver below it."""
