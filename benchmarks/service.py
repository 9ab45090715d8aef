"""Requests per second and latencies of ``recbole-sigrec serve`` on this machine.

python benchmarks/service.py BUNDLE [--clients 8] [--seconds 10]

Starts the service, and asks it over kept connections, a thread for each: one user at a time, one
user not at all (/health, what HTTP alone costs), and 100 users at a time.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import quote, urlsplit

import numpy as np
import psutil

from recbole_sigrec.serving import Recommender


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def post(path, content):
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read(connection):
    """The status of an answer, which is read whole."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(2**16)
    head = data[:end].lower()
    left = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) - (len(data) - end - 4)
    while left > 0:
        left -= len(connection.recv(2**16))
    return int(head.split()[1])


def ask(address, requests, until, seconds):
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.perf_counter() < until:
            request = random.choice(requests)
            start = time.perf_counter()
            connection.sendall(request)
            status = read(connection)
            seconds.append(time.perf_counter() - start)
            assert status == 200, status


def measure(address, requests, clients, duration):
    seconds = [[] for _ in range(clients)]
    start = time.perf_counter()
    threads = [
        threading.Thread(target=ask, args=(address, requests, start + duration, one))
        for one in seconds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    return np.concatenate(seconds), took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    known = parser.parse_args()
    recommender = Recommender.load(known.bundle)
    users = random.Random(1).choices(recommender.users.names.tolist(), k=2000)
    cases = {
        "/health": [get("/health")],
        "GET one user, k = 10": [get(f"/recommend/{quote(user, safe='')}") for user in users],
        "POST 100 users, k = 10": [
            post("/recommend", {"users": users[n : n + 100]}) for n in range(0, 2000, 100)
        ],
    }
    command = [sys.executable, "-m", "recbole_sigrec.cli", "serve", known.bundle, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        url = urlsplit(service.stdout.readline().split()[-1])
        try:
            columns = f"{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms each':>13}"
            print(f"{'case':<24}{columns}")
            process = psutil.Process(service.pid)
            for name, requests in cases.items():
                before = sum(process.cpu_times()[:2])
                found, took = measure(
                    (url.hostname, url.port), requests, known.clients, known.seconds
                )
                middle, high = np.percentile(found, [50, 99]) * 1e3
                each = (sum(process.cpu_times()[:2]) - before) / len(found) * 1e3
                values = f"{len(found) / took:>12.0f}{middle:>9.1f}{high:>9.1f}{each:>13.2f}"
                print(f"{name:<24}{values}", flush=True)
        finally:
            service.terminate()


if __name__ == "__main__":
    main()
