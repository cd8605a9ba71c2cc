"""Asking the admin listener of a running service."""

import re

import aiohttp


async def get(made, path):
    url = f"http://127.0.0.1:{made.running.admin_port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.text()


def value(text, name, **labels):
    """One sample of the text form."""
    for line in text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")):
            found = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if all(found.get(key) == wanted for key, wanted in labels.items()):
                return float(line.rsplit(" ", 1)[1])
    return None
