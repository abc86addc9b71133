"""Between POX's web server and the pages: the HTTP of an answer."""

from edge.poxfixes.webserver import RequestHandler
from edge.web.site import SECURITY_HEADERS, Site


class Handler(RequestHandler):
    """
    Sends what the Site answers to a request.

    args: the Site, as given to set_handler()
    """

    args: Site

    def respond(self) -> None:
        """Send the response to the request."""
        response = self.args.answer(self.command, self.path, self.headers)
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        if response.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    @classmethod
    def format_info(cls, args: object) -> str:
        """What POX's own page says of this prefix."""
        return "the big switch"
