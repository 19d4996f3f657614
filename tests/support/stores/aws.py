"""moto's server: Secrets Manager and the Parameter Store of AWS, in memory, on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from support.waiting import wait_for

REGION = "eu-west-1"
SECRET_KEY = "the-secret-access-key-of-these-tests-0123"
_open = build_opener(ProxyHandler({})).open


def environment(url: str) -> dict[str, str]:
    """What boto3 needs to talk to it and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(url: str, service: str) -> Any:
    """A client of boto3, past the code that is tested."""
    import boto3

    known = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
    return boto3.Session(**known).client(service, endpoint_url=url)


@contextmanager
def moto() -> Iterator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_up(url, process), seconds=90, what="moto")
        yield url
    finally:
        process.kill()
        process.wait()


def _is_up(url: str, process: subprocess.Popen[Any]) -> bool:
    assert process.poll() is None, "moto ended"
    try:
        with _open(f"{url}/moto-api/data.json", timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
