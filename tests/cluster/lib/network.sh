# A bridge, and a network namespace for each node.

network_up() {
  ip link add "$BRIDGE" type bridge
  ip addr add "$HOST_IP/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  sysctl -qw net.ipv4.ip_forward=1
  local n
  for n in $(seq "$NODES"); do node_network "$n"; done
  clients_network
  # Tests on the host reach Services through the first node.
  ip route replace "$SERVICE_CIDR" via "$(node_ip 1)"
}

node_network() {
  local n=$1 name ip other
  name=$(node_name "$n")
  ip=$(node_ip "$n")
  ip netns add "$name"
  ip link add "$name" type veth peer name eth0 netns "$name"
  ip link set "$name" master "$BRIDGE" up
  ip -n "$name" addr add "$ip/24" dev eth0
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  ip -n "$name" route add default via "$HOST_IP"
  for other in $(seq "$NODES"); do
    [[ $other == "$n" ]] || ip -n "$name" route add "$(node_pods "$other")" via "$(node_ip "$other")"
  done
  nsenter --net=/run/netns/"$name" sysctl -qw net.ipv4.ip_forward=1
  ip route replace "$(node_pods "$n")" via "$ip"
}

# Where load tools run: many source addresses, outside of every node.
clients_network() {
  local n
  ip netns add "$CLIENTS"
  ip link add "$CLIENTS" type veth peer name eth0 netns "$CLIENTS"
  ip link set "$CLIENTS" master "$BRIDGE" up
  ip -n "$CLIENTS" link set lo up
  ip -n "$CLIENTS" link set eth0 up
  for n in $(seq 64); do ip -n "$CLIENTS" addr add "198.18.0.$((100 + n))/24" dev eth0; done
  ip -n "$CLIENTS" route add default via "$HOST_IP"
}

# Links whose names this harness gives.
our_links() { ip -o link show | awk -F': ' '{sub(/@.*/, "", $2); print $2}' | grep -e "^$NODE_PREFIX[0-9]" -e "^$CLIENTS$" -e "^$BRIDGE$"; }

network_down() {
  local name
  # Explicitly: a namespace takes its links along only when the kernel gets to it.
  for name in $(our_links || true); do ip link del "$name" 2>/dev/null || true; done
  for name in $(ip netns list 2>/dev/null | awk '{print $1}' | grep -e "^$NODE_PREFIX" -e "^$CLIENTS$" || true); do
    ip netns del "$name"
  done
  # Pods' namespaces, made by the container runtime, are named cni-UUID. One
  # belongs to us when nothing runs in it any more.
  for name in $(ip netns list 2>/dev/null | awk '{print $1}' | grep '^cni-' || true); do
    [[ -n $(ip netns pids "$name" 2>/dev/null) ]] || ip netns del "$name" 2>/dev/null || true
  done
  wait_for 30 "the old network is gone" no_links || die "still there: $(our_links | tr '\n' ' ')"
}

no_links() { ! our_links; }
