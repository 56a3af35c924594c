"""What the tasks of every peer do: the same bodies everywhere."""

from __future__ import annotations

import asyncio
import time


def noop(x):
    return x


async def async_noop(x):
    return x


def nap(seconds):
    time.sleep(seconds)
    return seconds


async def async_nap(seconds):
    await asyncio.sleep(seconds)
    return seconds


def echo(text):
    return text


async def async_echo(text):
    return text
