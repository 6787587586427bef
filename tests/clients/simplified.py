"""comfy-api-simplified, as it comes from its registry, against the gateway at MOORING_URL.

What makes this client a hard one: each prompt has a clientId of its own, the prompt is posted
before the socket is opened, a `status` with nothing remaining ends the wait at once, and history
and pictures are asked for without saying who asks.

Prints TAP; exits with 1 if anything failed.
"""

import concurrent.futures
import os
import struct
import sys
import tempfile
import traceback
import zlib

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
from comfy_api_simplified.exceptions import ComfyApiError

API = ComfyApiWrapper(os.environ["MOORING_URL"])
PROMPTS = 10
IMAGE_TO_IMAGE = 50
NAMES = 5
TITLE = "Save Image"


def graph(color, prefix, seconds, fail=False):
    """EmptyImage → SlowSteps → SaveImage. No previews: this client takes each for a result."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": color},
            "_meta": {"title": "Empty Image"},
        },
        "2": {
            "class_type": "SlowSteps",
            "inputs": {
                "image": ["1", 0], "steps": 4, "seconds": seconds, "fail": fail, "preview": False,
            },
            "_meta": {"title": "Slow Steps"},
        },
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": prefix},
            "_meta": {"title": TITLE},
        },
    }


def first_pixel(png):
    """The colour of a PNG's first pixel. No filter can change the first pixel of the first row."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n", "this is not a PNG"
    packed, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at:at + 4])
        if png[at + 4:at + 8] == b"IDAT":
            packed += png[at + 8:at + 8 + length]
        at += length + 12
    return tuple(zlib.decompress(packed)[1:4])


def run(color, prefix, seconds=0.3):
    """One prompt to its picture, whose colour must be the one that was asked for."""
    workflow = ComfyWorkflowWrapper(graph(color, prefix, seconds))
    images = API.queue_and_wait_images(workflow, TITLE)
    assert len(images) == 1, f"one picture, not {list(images)}"
    (picture,) = images.values()
    wanted = (color >> 16, (color >> 8) & 255, color & 255)
    assert first_pixel(picture) == wanted, f"{first_pixel(picture)} is not {wanted}"


def png(color):
    """A picture of one colour."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + bytes((color >> 16, (color >> 8) & 255, color & 255)) * 48
    header = struct.pack(">IIBBBBB", 48, 32, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(row * 32)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def invert(color, folder, name):
    """Uploads a picture as its documentation does, and gets it back inverted."""
    path = os.path.join(folder, f"{color:06x}", name)
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(png(color))
    stored = API.upload_image(path)
    nodes = {
        "1": {
            "class_type": "LoadImage",
            "inputs": {"image": f"{stored['subfolder']}/{stored['name']}"},
            "_meta": {"title": "Load Image"},
        },
        "2": {
            "class_type": "ImageInvert",
            "inputs": {"image": ["1", 0]},
            "_meta": {"title": "Invert Image"},
        },
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "ComfyUI"},
            "_meta": {"title": TITLE},
        },
    }
    images = API.queue_and_wait_images(ComfyWorkflowWrapper(nodes), TITLE)
    (picture,) = images.values()
    wanted = tuple(255 - part for part in (color >> 16, (color >> 8) & 255, color & 255))
    assert first_pixel(picture) == wanted, f"{stored}: {first_pixel(picture)} is not {wanted}"


def one_prompt_runs_to_its_picture():
    run(0x3366CC, "simple_one", 1.0)


def a_prompt_over_before_the_socket_opens_is_not_waited_for_in_vain():
    for index in range(5):
        run(0x112233 + index, f"simple_quick_{index}", 0.0)


def prompts_one_after_the_other():
    for index in range(PROMPTS):
        run(0x102030 + index * 0x0F0B07, f"simple_row_{index}")


def prompts_at_once():
    with concurrent.futures.ThreadPoolExecutor(PROMPTS) as pool:
        runs = [
            pool.submit(run, 0xA01020 + index * 0x050D11, f"simple_once_{index}")
            for index in range(PROMPTS)
        ]
        for done in runs:
            done.result()


def pictures_become_pictures_of_equal_names():
    with tempfile.TemporaryDirectory() as folder:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            runs = [
                pool.submit(invert, 0x010203 * (index + 1), folder, f"input{index % NAMES}.png")
                for index in range(IMAGE_TO_IMAGE)
            ]
            for done in runs:
                done.result()


def a_prompt_that_fails_is_told_to_have_failed():
    try:
        API.queue_and_wait_images(graph(1, "simple_fail", 0.3, fail=True), TITLE)
    except ComfyApiError:
        return
    raise AssertionError("it did not fail")


def a_prompt_that_comfyui_refuses_is_refused():
    try:
        API.queue_prompt({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    except ComfyApiError as error:
        assert "400" in str(error), error
        return
    raise AssertionError("it was not refused")


TESTS = [
    one_prompt_runs_to_its_picture,
    a_prompt_over_before_the_socket_opens_is_not_waited_for_in_vain,
    prompts_one_after_the_other,
    prompts_at_once,
    pictures_become_pictures_of_equal_names,
    a_prompt_that_fails_is_told_to_have_failed,
    a_prompt_that_comfyui_refuses_is_refused,
]


def main():
    print(f"1..{len(TESTS)}")
    failed = 0
    for number, case in enumerate(TESTS, 1):
        name = case.__name__.replace("_", " ")
        try:
            case()
            print(f"ok {number} - {name}", flush=True)
        except Exception:  # Whatever went wrong, the other tests are to be run.
            failed += 1
            print(f"not ok {number} - {name}")
            for line in traceback.format_exc().splitlines():
                print(f"  # {line}", flush=True)
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
