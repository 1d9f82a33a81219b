#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""lab_batch: many items, each a list of states to bring about, in one module call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_batch
short_description: Bring many items to their declared states in one call
description:
  - Each item is a list of operations performed in order. An operation is idempotent and says what it changed.
  - An item that fails stops there; the other items go on. The result holds one entry per item.
options:
  items:
    description: What to bring about, C({id, ops}) each; an operation is C({op, ...}).
    type: list
    elements: dict
    required: true
  finish:
    description: Operations performed once at the end, if any item changed anything.
    type: list
    elements: dict
    default: []
author: Lab
"""

EXAMPLES = r"""
- name: Two files in one call
  lab_batch:
    items:
      - {id: file.a, ops: [{op: file, path: /etc/a, content: "a\n"}]}
      - {id: file.b, ops: [{op: file, path: /etc/b, state: absent}]}
"""

RETURN = r"""
results:
  description: One entry per item.
  type: list
  elements: dict
  returned: always
  sample: [{id: file.a, changed: true, done: ["wrote /etc/a"]}]
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.lab_host.machine import Failed, Machine  # noqa: E402
from ansible.module_utils.lab_host.ops import perform  # noqa: E402


def main():
    module = AnsibleModule(
        argument_spec={
            "items": {"type": "list", "elements": "dict", "required": True, "no_log": False},
            "finish": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    results = []
    for item in module.params["items"]:
        results.append(one(item, module.check_mode))
    changed = any(r["changed"] for r in results)
    if changed and module.params["finish"]:
        last = one({"id": "finish", "ops": module.params["finish"]}, module.check_mode)
        if last.get("failed"):
            for r in results:
                if r["changed"] and not r.get("failed"):
                    r.update(failed=True, why=last["why"], do=last["do"])
    failed = [r["id"] for r in results if r.get("failed")]
    if failed:
        module.fail_json(msg="failed: " + ", ".join(failed), changed=changed, results=results)
    module.exit_json(changed=changed, results=results)


def one(item, check):
    machine = Machine(check)
    result = {"id": item["id"], "changed": False}
    try:
        for op in item["ops"]:
            perform(machine, op)
    except Failed as e:
        result.update(failed=True, why=e.why, do=e.do)
    except OSError as e:
        result.update(failed=True, why="{}: {}".format(e.filename or "the system", e.strerror), do="")
    result["changed"] = bool(machine.done)
    result["done"] = machine.done
    if machine.facts:
        result["facts"] = machine.facts
    return result


if __name__ == "__main__":
    main()
