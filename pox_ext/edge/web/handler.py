"""Sends the responses of the dashboard through POX's web server."""

from edge.poxfixes.webserver import RequestHandler
from edge.web.site import SECURITY_HEADERS, Site


class Handler(RequestHandler):
    """
    Sends the Site's response to a request.

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
        """The description of this prefix on POX's own page."""
        return "the big switch"
