from contextlib import suppress
from importlib import import_module

# As the role gunicorn has it: workers boot in half the time.
with suppress(ImportError):
    import_module("flask")

wsgi_app = "hello:create_app()"
worker_class = "gthread"
workers = 2
threads = 4
worker_tmp_dir = "/dev/shm"
graceful_timeout = 10
timeout = 30
control_socket_disable = True
