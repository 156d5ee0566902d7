"""The control API, under ``/_emulator``: steers the emulator with JSON over HTTP.

`endpoints.ENDPOINTS` is all of it as a table, and `dispatch.control` answers a request by it.
"""
