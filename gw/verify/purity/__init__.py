"""Purity of the TX loop: source and running calls compared with one allow-list.

allow_list: permitted operations, with reasons and measured costs; forbidden kinds.
check: compares the source with the list.
evaluator: finds every operation that TX can reach, by evaluating types.
kinds: values of the evaluator.
module_source: names bound by one file.
project_source: name resolution over all files.
dynamic: runs the rig and real calls under watch.
rig: one TX driven through all its branches.
live_calls: real calls through a media plane in this process.
watch: tracer and audit hook.
report: document, tables and verdict.
"""
