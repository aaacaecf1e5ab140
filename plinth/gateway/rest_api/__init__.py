"""REST over the core: FastAPI, of which Starlette is a dependency already; Litestar would bring a second stack."""
