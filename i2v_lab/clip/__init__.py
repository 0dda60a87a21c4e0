"""What a clip is, in memory and on disk: its parameters, picture, file, record and key."""
