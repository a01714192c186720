"""Routes of the login machine and of login profiles."""

from __future__ import annotations

from meshd.base.errors import MeshdError
from meshd.core.prefs import from_json
from meshd.feature.localapi.jsontext import json_response, parse_object
from meshd.feature.localapi.route import NO_CONTENT, Access, Call, Route, reason_of
from meshd.io.http.h1server import HttpError, Response

_OPTIONS = {"authkey": "AuthKey", "updateprefs": "UpdatePrefs"}


async def _start(call: Call) -> Response:
    given = parse_object(await call.request.body())
    options = {_OPTIONS.get(name.lower(), name): value for name, value in given.items()}
    key, wanted = options.get("AuthKey"), options.get("UpdatePrefs")
    if key is not None and not isinstance(key, str):
        raise HttpError(400, "invalid JSON request body: AuthKey: expected a text")
    if wanted is not None:
        if not isinstance(wanted, dict):
            raise HttpError(400, "invalid JSON request body: UpdatePrefs: expected an object")
        from_json(wanted)  # what cannot be read is a bad request, and all else a failed start
    try:
        await call.backend.start(options)
    except MeshdError as error:
        raise HttpError(500, str(error)) from error
    return Response(NO_CONTENT)


async def _login_interactive(call: Call) -> Response:
    await call.backend.login_interactive()
    return Response(NO_CONTENT)


async def _logout(call: Call) -> Response:
    await call.backend.logout(reason_of(call))
    return Response(NO_CONTENT)


async def _reset_auth(call: Call) -> Response:
    try:
        await call.backend.reset_auth()
    except MeshdError as error:
        raise HttpError(500, f"reset-auth failed: {error}") from error
    return Response(NO_CONTENT)


async def _set_expiry_sooner(call: Call) -> Response:
    text = await call.request.value("expiry")
    if not text:
        raise HttpError(400, "missing 'expiry' parameter, a unix timestamp")
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        raise HttpError(400, "can't parse expiry time, expects a unix timestamp")
    try:
        await call.backend.set_expiry_sooner(float(text))
    except MeshdError as error:
        raise HttpError(400, str(error)) from error
    return Response(200, [("Content-Type", "text/plain")], b"done\n")


async def _profiles(call: Call) -> Response:
    if call.rest == "":
        return await _all_profiles(call)
    if call.rest == "current":
        if call.request.method != "GET":
            raise HttpError(405, "use GET")
        return json_response(call.backend.current_profile())
    return await _one_profile(call, call.rest)


async def _all_profiles(call: Call) -> Response:
    match call.request.method:
        case "GET":
            return json_response(call.backend.profiles())
        case "PUT":
            # An operator who begins one could neither log in to it nor go back otherwise.
            await call.backend.new_profile(operator_stays=not call.may.owner)
            return Response(201)
    raise HttpError(405, "use GET or PUT")


async def _one_profile(call: Call, profile_id: str) -> Response:
    match call.request.method:
        case "GET":
            for profile in call.backend.profiles():
                if profile["ID"] == profile_id:
                    return json_response(profile)
            raise HttpError(404, "Profile not found")
        case "POST":
            act = call.backend.switch_profile
        case "DELETE":
            act = call.backend.delete_profile
        case _:
            raise HttpError(405, "use POST or DELETE")
    try:
        await act(profile_id)
    except MeshdError as error:
        raise HttpError(500, str(error)) from error
    return Response(NO_CONTENT)


_POST = ("POST",)
_WANT_POST = (400, "want POST")

ROUTES = [
    Route("start", _start, Access.WRITE, methods=_POST, wrong_method=_WANT_POST),
    Route(
        "login-interactive",
        _login_interactive,
        Access.WRITE,
        "login access denied",
        methods=_POST,
        wrong_method=_WANT_POST,
    ),
    Route("logout", _logout, Access.WRITE, "logout access denied", methods=_POST, wrong_method=_WANT_POST),
    Route("reset-auth", _reset_auth, Access.WRITE, "reset-auth modify access denied", methods=_POST),
    Route("set-expiry-sooner", _set_expiry_sooner, Access.WRITE, methods=_POST, wrong_method=(405, "POST required")),
    Route("profiles/", _profiles, Access.WRITE, "profiles access denied"),
]
