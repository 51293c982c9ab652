# Builds the inside of one container and becomes its first process. Runs in fresh network, mount and process namespaces:
# ROOT HOSTS DATA VOLUMES ADDRESS GATEWAY COMMAND...; VOLUMES is a list of name:/mountpoint.
set -eu
root=$1 hosts=$2 data=$3 volumes=$4 address=$5 gateway=$6
shift 6
mount -t tmpfs -o mode=755 node "$root"
for entry in /*; do
  case $entry in /proc | /run) continue ;; esac
  if [ -L "$entry" ]; then
    cp -P "$entry" "$root/"
  elif [ -d "$entry" ]; then
    mkdir "$root$entry"
    mount --rbind "$entry" "$root$entry"
  fi
done
mkdir "$root/proc" "$root/run"
mount -t proc proc "$root/proc"
mount --bind "$hosts" "$root/etc/hosts"
for volume in $volumes; do
  mkdir -p "$data/${volume%%:*}" "$root${volume#*:}"
  mount --bind "$data/${volume%%:*}" "$root${volume#*:}"
done
# The veth can be made once these namespaces exist, and addresses once the veth does.
echo ready
read -r _
ip link set lo up
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"
cd "$root"
exec chroot "$root" "$@" </dev/null
