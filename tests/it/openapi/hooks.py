"""What the description's schema can't say, told to the tool that tests by it.

Cases that are meant to be valid are made so; of those that are meant to be refused only the domains, the hosts and the
empty parameters are changed.
"""

import os
import re

import schemathesis
from schemathesis.specs.openapi.checks import ensure_resource_availability

# What no parameter takes: too long for an id, and nothing that another one could be.
REFUSED = "x" * 129
PLAIN_HOST = re.compile(r"(https?://)?([A-Za-z0-9]+([.-][A-Za-z0-9]+)*)(/[A-Za-z0-9/]*)?")


@schemathesis.hook
def before_call(context, case, **kwargs):
    # The tool lists websites, and deletes what it finds or gives it another code; without this one every event would be
    # "not found".
    is_gone_by_it = case.method == "DELETE" or case.path.endswith("/tracking-code")
    if is_gone_by_it and (case.path_parameters or {}).get("websiteId") == os.environ["WEBSITE_ID"]:
        case.path_parameters["websiteId"] = "web-000000000000"
    if not (case.meta and case.meta.generation.mode.is_positive):
        # The description's formats tell some hosts and URLs, and more are taken: what is none by any rules is refused.
        domain = isinstance(case.body, dict) and case.body.get("domain")
        if isinstance(domain, str) and not PLAIN_HOST.fullmatch(domain):
            case.body["domain"] = "not a host"
        hosts = isinstance(case.body, dict) and case.body.get("hosts")
        for number, host in enumerate(hosts if isinstance(hosts, list) else []):
            if isinstance(host, str) and not PLAIN_HOST.fullmatch(host):
                hosts[number] = "not a host"
        # An empty parameter is as if absent, which is no fault. An empty object is written as nothing, too.
        empty = [name for name, value in (case.query or {}).items() if value in ("", [""], {})]
        if case.path.startswith("/api/v1/dashboard") and {"websiteId", "trackingCode"} & set(empty):
            # The other name may be that of a website, and of two only one is given.
            case.query.pop("trackingCode", None)
            case.query["websiteId"] = REFUSED
        for name in empty:
            if name != "trackingCode":
                case.query[name] = REFUSED
        if case.headers and case.headers.get("Last-Event-ID") == "":
            case.headers["Last-Event-ID"] = REFUSED
        return
    # `cursor` and `offset` exclude each other; a cursor is taken only by the listing that gave it; and of two times
    # `from` must not be the later one.
    if case.path in ("/api/v1/events", "/api/v1/websites") and case.query:
        case.query.pop("cursor", None)
        if "from" in case.query:
            case.query.pop("to", None)
    # A position is taken only of the website that it was given for.
    if case.path == "/api/v1/events/tail":
        if case.query and case.query.get("after") != "start":
            case.query.pop("after", None)
        if case.headers:
            case.headers.pop("Last-Event-ID", None)
    # Of a range there are two forms, which exclude each other, and of zones only those that there are; a long range has
    # too many hours; and there are at most 20 filters.
    if case.path.startswith("/api/v1/stats") and case.query:
        if "timezone" in case.query:
            case.query["timezone"] = "Europe/Berlin"
        if "period" in case.query or not {"from", "to"} <= set(case.query):
            case.query.pop("from", None)
            case.query.pop("to", None)
        else:
            case.query["from"], case.query["to"] = "2026-01-01", "1769899000000"
        if case.query.get("interval") == "hour":
            case.query.pop("period", None)
    # The dashboard's routes have two names for a website, one of which is given.
    if case.path.startswith("/api/v1/dashboard"):
        case.query = dict(case.query or {})
        case.query.pop("websiteId" if is_every_second(case) else "trackingCode", None)
        if not {"websiteId", "trackingCode"} & set(case.query):
            case.query["websiteId"] = os.environ["WEBSITE_ID"]
    # The same of a website's zone, and the names of its goals differ.
    if case.path.startswith("/api/v1/websites") and isinstance(case.body, dict):
        if case.body.get("timezone") is not None:
            case.body["timezone"] = "Europe/Berlin"
        # Events of made-up pages would be refused.
        if case.body.get("hostsPolicy") == "refuse":
            case.body["hostsPolicy"] = "warn"
        for number, goal in enumerate(case.body.get("goals") or []):
            goal["name"] = f"{number} {goal['name']}"[:255]
    # A code that some website has, so that more than "not found" is seen; made-up ones are tried as well.
    code = os.environ["TRACKING_CODE"]
    if case.query and "trackingCode" in case.query and is_every_second(case):
        case.query["trackingCode"] = code
    if isinstance(case.body, dict) and is_every_second(case):
        for event in [case.body, *case.body.get("events", [])]:
            for name in ("trackingCode", "code"):
                if isinstance(event, dict) and isinstance(event.get(name), str):
                    event[name] = code


def is_every_second(case):
    return hash(case.id) % 2 == 0


@schemathesis.check
def what_was_created_is_there(ctx, response, case):
    """The tool's `ensure_resource_availability`, but only of ids that were told, and not of events that a deletion may
    have taken along: the tool's own takes other names for the new id, an event's `eventId` for one, and those that
    `before_call` puts in its place."""
    parent = ctx.internals.find_parent(case_id=case.id)
    created = parent and ctx.internals.find_response(case_id=parent.id)
    ids = (case.path_parameters or {}).values()
    is_of_event = case.path.startswith("/api/v1/events")
    if is_of_event and any(other.method == "DELETE" for other in ctx.internals.find_all_cases()):
        return
    if created and all(f'"{id}"' in created.text for id in ids):
        ensure_resource_availability(ctx, response, case)
