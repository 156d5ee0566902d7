"""Issues by `rmsdk`, Revenue Monster's own Python SDK, one after another, as it can no other way.

Run as a process of its own with a URL and the file of a key; a line with seconds makes a run of
that length, whose throughput and codes come back as a JSON line. Nothing of the SDK is changed but
where its requests go.
"""

import json
import os
import sys

from loops import BATCH, Tally, for_seconds
from rmsdk import RMSDK
from rmsdk.request import Request


def main() -> None:
    url, key_file = sys.argv[1:]
    os.environ["NO_PROXY"] = "127.0.0.1"
    Request.formatUrl = lambda self, environment, auth, endpoint: f"{url}/{endpoint}"
    sdk = RMSDK(
        {
            "clientID": "bench",
            "clientSecret": "bench",
            "privateKey": key_file,
            "environment": "sandbox",
        }
    )
    for line in sys.stdin:
        codes = set[str]()
        tally = Tally(codes)
        for _ in for_seconds(float(line)):
            tally.add(sdk.voucher.issueVoucher(sdk.accessToken, BATCH)["item"]["code"])
        print(json.dumps({"per_s": tally.per_s(), "codes": list(codes)}), flush=True)


if __name__ == "__main__":
    main()
