"""What our own pages say to browsers, and where a request says who asks."""

VISITOR = "pochade.visitor"
"""Where the scope of a request names its `Visitor`."""
SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of each page; scripts only run from our own files."""
