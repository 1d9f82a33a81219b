"""An Ollama server of one's own, with an empty store, answers its API. Runs on Lab's Python; PROGRAM is the command."""

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request

program = os.environ["PROGRAM"]
print("step: serve")
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
with tempfile.TemporaryDirectory() as store:
    env = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": store, "HOME": store}
    server = subprocess.Popen([program, "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                url = f"http://127.0.0.1:{port}/api"
                version = json.load(urllib.request.urlopen(f"{url}/version", timeout=2))["version"]
                break
            except OSError:
                assert server.poll() is None, "the server ended at once"
                time.sleep(0.1)
        else:
            raise TimeoutError("no answer within 10 s")
        print("step: list")
        assert json.load(urllib.request.urlopen(f"{url}/tags", timeout=5))["models"] in ([], None)
    finally:
        server.terminate()
        server.wait(10)
print(json.dumps({"version": version, "device": "", "tested": ["serve", "list models"]}))
