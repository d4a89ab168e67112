"""The least of an Iceberg REST catalog that DuckDB needs to write tables into a folder: one namespace, one client, no checks."""

import copy
import http.server
import json
import pathlib
import threading
import time
import traceback
import uuid

MAIN = "main"


def empty(location: str, request: dict) -> dict:
    """The metadata of a table that is created."""
    version = int(request.get("properties", {}).pop("format-version", 2))
    schema = {**request["schema"], "schema-id": 0}
    spec = {**(request.get("partition-spec") or {"fields": []}), "spec-id": 0}
    for number, field in enumerate(spec["fields"]):
        field["field-id"] = 1000 + number
    order = {**(request.get("write-order") or {"fields": []}), "order-id": 0}
    metadata = {
        "format-version": version, "table-uuid": str(uuid.uuid4()), "location": location, "last-sequence-number": 0,
        "last-updated-ms": 0, "last-column-id": max([0, *ids(schema)]), "schemas": [schema], "current-schema-id": 0,
        "partition-specs": [spec], "default-spec-id": 0, "last-partition-id": 999 + len(spec["fields"]), "sort-orders": [order],
        "default-sort-order-id": 0, "properties": request.get("properties", {}), "current-snapshot-id": -1, "refs": {},
        "snapshots": [], "snapshot-log": [], "metadata-log": [],
    }
    return {**metadata, "next-row-id": 0} if version == 3 else metadata


def ids(node) -> list[int]:
    """The field ids anywhere in a schema."""
    if isinstance(node, list):
        return [found for item in node for found in ids(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("id", "element-id", "key-id", "value-id") if isinstance(node.get(key), int)]
    return own + [found for value in node.values() for found in ids(value)]


def apply(metadata: dict, update: dict) -> None:
    """One update of a commit."""
    action = update["action"]
    if action == "assign-uuid":
        metadata["table-uuid"] = update["uuid"]
    elif action == "upgrade-format-version":
        if update["format-version"] == 3:
            metadata.setdefault("next-row-id", 0)
        metadata["format-version"] = update["format-version"]
    elif action == "set-location":
        metadata["location"] = update["location"]
    elif action == "set-properties":
        metadata["properties"].update(update.get("updates", update.get("updated")))
    elif action == "remove-properties":
        for key in update.get("removals", update.get("removed")):
            metadata["properties"].pop(key, None)
    elif action == "add-schema":
        schema = {**update["schema"], "schema-id": 1 + max(schema["schema-id"] for schema in metadata["schemas"])}
        metadata["schemas"].append(schema)
        metadata["last-column-id"] = max([metadata["last-column-id"], *ids(schema)])
    elif action == "set-current-schema":
        last = metadata["schemas"][-1]["schema-id"]
        metadata["current-schema-id"] = last if update["schema-id"] == -1 else update["schema-id"]
    elif action == "add-spec":
        spec = {**update["spec"], "spec-id": 1 + max(spec["spec-id"] for spec in metadata["partition-specs"])}
        for field in spec["fields"]:
            if field.get("field-id") is None:
                metadata["last-partition-id"] += 1
                field["field-id"] = metadata["last-partition-id"]
        metadata["last-partition-id"] = max([metadata["last-partition-id"], *(field["field-id"] for field in spec["fields"])])
        metadata["partition-specs"].append(spec)
    elif action == "set-default-spec":
        last = metadata["partition-specs"][-1]["spec-id"]
        metadata["default-spec-id"] = last if update["spec-id"] == -1 else update["spec-id"]
    elif action == "add-sort-order":
        order = {**update["sort-order"], "order-id": 1 + max(order["order-id"] for order in metadata["sort-orders"])}
        metadata["sort-orders"].append(order)
    elif action == "set-default-sort-order":
        last = metadata["sort-orders"][-1]["order-id"]
        metadata["default-sort-order-id"] = last if update["sort-order-id"] == -1 else update["sort-order-id"]
    elif action == "add-snapshot":
        snapshot = update["snapshot"]
        metadata["snapshots"].append(snapshot)
        metadata["last-sequence-number"] = max(metadata["last-sequence-number"], snapshot.get("sequence-number", 0))
        metadata["last-updated-ms"] = snapshot["timestamp-ms"]
        if metadata["format-version"] == 3:
            metadata["next-row-id"] += snapshot.get("added-rows", 0)
    elif action == "set-snapshot-ref":
        ref = {key: value for key, value in update.items() if key not in ("action", "ref-name")}
        metadata["refs"][update["ref-name"]] = ref
        if update["ref-name"] == MAIN:
            metadata["current-snapshot-id"] = ref["snapshot-id"]
            log = {"snapshot-id": ref["snapshot-id"], "timestamp-ms": metadata["last-updated-ms"]}
            metadata["snapshot-log"].append(log)
    else:
        raise ValueError(f"the update {action} is not known here")


class Catalog:
    """Tables by name, in folders of `root`; served at `url`."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.tables: dict[str, tuple[str, dict]] = {}
        catalog = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer("GET")

            def do_HEAD(self):
                self.answer("HEAD")

            def do_POST(self):
                self.answer("POST")

            def do_DELETE(self):
                self.answer("DELETE")

            def log_message(self, *arguments):
                pass

            def answer(self, method):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                try:
                    status, content = catalog.answer(method, self.path, json.loads(body) if body else {})
                except Exception as error:
                    traceback.print_exc()
                    status, content = 500, {"error": {"message": repr(error), "type": "ServerError", "code": 500}}
                content = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if method != "HEAD":
                    self.wfile.write(content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def write(self, name: str, metadata: dict) -> None:
        folder = pathlib.Path(metadata["location"]) / "metadata"
        previous = self.tables.get(name)
        number = 0
        if previous:
            number = 1 + int(pathlib.Path(previous[0]).name.split("-")[0])
            metadata["metadata-log"].append({"metadata-file": previous[0], "timestamp-ms": previous[1]["last-updated-ms"]})
        path = folder / f"{number:05}-{uuid.uuid4()}.metadata.json"
        path.write_text(json.dumps(metadata))
        self.tables[name] = (str(path), metadata)

    def loaded(self, name: str) -> dict:
        location, metadata = self.tables[name]
        return {"metadata-location": location, "metadata": metadata, "config": {}}

    def commit(self, name: str, request: dict) -> None:
        if name in self.tables:
            metadata = copy.deepcopy(self.tables[name][1])
        else:
            metadata = copy.deepcopy(self.staged.pop(name))
        for update in request["updates"]:
            # What a staged table was created with is not added to it a second time.
            if update["action"] in ("add-schema", "add-spec", "add-sort-order") and name not in self.tables:
                continue
            apply(metadata, update)
        metadata["last-updated-ms"] = int(time.time() * 1000)
        self.write(name, metadata)

    staged: dict[str, dict] = {}

    def answer(self, method: str, path: str, request: dict):
        parts = [part for part in path.split("?")[0].split("/") if part][1:]
        match (method, parts):
            case ("GET", ["config"]):
                return 200, {"defaults": {}, "overrides": {}}
            case ("GET", ["namespaces"]):
                return 200, {"namespaces": [["db"]]}
            case ("GET" | "HEAD", ["namespaces", _]):
                return 200, {"namespace": ["db"], "properties": {}}
            case ("GET", ["namespaces", _, "tables"]):
                return 200, {"identifiers": [{"namespace": ["db"], "name": name} for name in self.tables]}
            case ("POST", ["namespaces", _, "tables"]):
                name = request["name"]
                metadata = empty(request.get("location") or str(self.root / name), request)
                # DuckDB makes no folders of its own.
                for folder in ("metadata", "data"):
                    (pathlib.Path(metadata["location"]) / folder).mkdir(parents=True, exist_ok=True)
                if request.get("stage-create"):
                    self.staged[name] = metadata
                    return 200, {"metadata": metadata, "config": {}}
                self.write(name, metadata)
                return 200, self.loaded(name)
            case ("GET" | "HEAD", ["namespaces", _, "tables", name]):
                if name not in self.tables:
                    return 404, {"error": {"message": f"no table {name}", "type": "NoSuchTableException", "code": 404}}
                return (200, self.loaded(name)) if method == "GET" else (204, None)
            case ("POST", ["namespaces", _, "tables", name]):
                self.commit(name, request)
                return 200, self.loaded(name)
            case ("POST", ["transactions", "commit"]):
                for change in request["table-changes"]:
                    self.commit(change["identifier"]["name"], change)
                return 204, None
            case ("DELETE", ["namespaces", _, "tables", name]):
                self.tables.pop(name)
                return 204, None
        return 404, {"error": {"message": f"{method} {path}", "type": "NotFound", "code": 404}}
