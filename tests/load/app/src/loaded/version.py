VERSION = "one"
BROKEN = ""
