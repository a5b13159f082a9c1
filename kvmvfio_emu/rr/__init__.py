"""`kvmvfio-emu tcp-rr`: what forwarding buys, by the steps that the model counts and by costs that the user sets.

``costs`` reads what a step costs, ``guest`` and ``vmm`` are the workload, ``account`` gives each event of the model its
time, ``workload`` runs it all, ``measure`` sums up, ``sweep`` varies the costs, ``report`` and ``plot`` show it.
"""
