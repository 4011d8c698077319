"""The page's own components: each a script and a template beside the Python that declares it."""
