# Builds the inside of one container and becomes its first process. Runs in fresh network, mount and process namespaces:
# ROOT IMAGE HOSTS DATA VOLUMES ADDRESS GATEWAY COMMAND...; IMAGE is a directory with the files of an image, or empty for those of this
# machine; VOLUMES is a list of name:/mountpoint; COMMAND goes into ROOT by itself.
set -eu
root=$1 image=$2 hosts=$3 data=$4 volumes=$5 address=$6 gateway=$7
shift 7

machine_files() {
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
}

# What a container runtime puts around the files of an image.
image_files() {
  mkdir "$root/upper" "$root/work"
  # userxattr: this root is one of a user namespace.
  mount -t overlay -o "userxattr,lowerdir=$image,upperdir=$root/upper,workdir=$root/work" image "$root"
  mount -t tmpfs -o mode=755 dev "$root/dev"
  for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  mkdir -m 1777 "$root/dev/shm"
  mount --rbind /sys "$root/sys"
  touch "$root/etc/hosts" "$root/etc/resolv.conf"
  mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
}

mount -t tmpfs -o mode=755 node "$root"
if [ -n "$image" ]; then image_files; else machine_files; fi
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
exec "$@" </dev/null
