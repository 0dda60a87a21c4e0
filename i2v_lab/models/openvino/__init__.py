"""Networks computed by OpenVINO: converted once a shape, kept on disk, and put in the place of torch's while a clip is made."""
