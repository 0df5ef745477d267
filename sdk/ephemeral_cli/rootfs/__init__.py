"""The sandboxes' root filesystems: made, named, listed, removed.

    records   what is known of each, and where it is written
    bootstrap one from Debian's packages
    images    one from an image: of the Docker engine on this machine, or in an archive
    taming    no privileges, no devices, real mount points
    probe     what it holds, asked inside gVisor
    making    all of that in order, and published in one rename
    removing  names and files that nobody needs any more
"""
