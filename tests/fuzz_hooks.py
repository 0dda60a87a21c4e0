"""What schemathesis has to know of our API: how a picture looks, as a data URL and as a file."""

from __future__ import annotations

import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from servers import data_url, picture


def _jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(number))).save(stream, "JPEG")
    return stream.getvalue()


PICTURES = [picture(number, (40 + number, 60)) for number in range(8)] + [_jpeg(9)]

# The fake model makes clips in no time; which model it is changes nothing of the API. The sizes are those of SMALL in test_api_fuzz.
schemathesis.openapi.format("picture-data-url", st.sampled_from([data_url(data) for data in PICTURES]))
schemathesis.openapi.format("model-name", st.just("fake"))
schemathesis.openapi.format("clip-size", st.just("256p") | st.builds("{}x{}".format, st.integers(64, 256), st.integers(64, 256)))
schemathesis.openapi.format("frame-rate", st.sampled_from(["1", "120", "12.5", "8.25", "24000/1001", "60000/1001", "23.976"]))
schemathesis.openapi.media_type("image/png", st.sampled_from(PICTURES))


@schemathesis.hook
def filter_body(context, body):  # type: ignore[no-untyped-def]
    """Drops a form with a null, which would be sent as the text "null", a prompt like any other."""
    return not (isinstance(body, dict) and isinstance(body.get("image"), bytes) and None in body.values())
