"""``/docs`` and ``/openapi.json``: the API, to read and for client generators.

The page is Swagger UI (Apache-2.0), whose files come with this package: it needs no internet.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from clasper_worker.shim.auth import DaemonKey
from clasper_worker.shim.description import ShimApp

_ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def docs_routes(app: ShimApp, keys: tuple[str, ...]) -> APIRouter:
    """The document and the page that shows it; a browser may give the key as a password."""
    router = APIRouter(include_in_schema=False)
    keyed = [Depends(DaemonKey(keys, as_password=True))]
    folder = files("clasper_worker.shim") / "swagger_ui"

    @router.get("/")
    async def root() -> Response:
        return RedirectResponse("docs")

    @router.get("/openapi.json", dependencies=keyed)
    async def document() -> Response:
        return JSONResponse(app.openapi())

    @router.get("/docs", dependencies=keyed)
    async def page() -> Response:
        content = (folder / "index.html").read_bytes()
        return Response(content, media_type="text/html; charset=utf-8", headers=_HEADERS)

    @router.get("/docs/{name}")
    async def asset(name: str, request: Request) -> Response:
        media_type = _ASSETS.get(name)
        if media_type is None:
            return RedirectResponse(request.scope.get("root_path", "") + "/docs")
        headers = {**_HEADERS, "Cache-Control": "max-age=86400"}
        content = (folder / name).read_bytes()
        return Response(content, media_type=media_type, headers=headers)

    return router
