"""Revenue Monster's own SDK in a process of its own: a call in, what came of it out, as JSON lines.

Nothing of it is changed but where its requests go. The first line constructs it.
"""

import json
import sys

from rmsdk import RMSDK  # type: ignore[import-untyped] # RM's own has no types
from rmsdk.exceptions import RMSDKAPIException  # type: ignore[import-untyped]
from rmsdk.request import Request  # type: ignore[import-untyped]

url = sys.argv[1]
Request.formatUrl = lambda self, environment, auth, endpoint: f"{url}/{endpoint}"


made: list[RMSDK] = []


def construct(settings):
    sdk = RMSDK(settings)
    made.append(sdk)
    return [sdk.accessToken, sdk.refreshToken]


def call(names, arguments):
    if names == "RMSDK":
        return construct(*arguments)
    part, method = names.split(".")
    return getattr(getattr(made[-1], part), method)(*arguments)


for line in sys.stdin:
    try:
        answer = {"answer": call(*json.loads(line))}
    except RMSDKAPIException as exc:
        answer = {"refused": exc.message}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
