# fish completion for noports. The program itself says what can come next.

function __noports
    for line in (noports docs complete (commandline -opc) (commandline -ct) 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end

for name in noports sshnp npt sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate
    complete --command $name --no-files --arguments '(__noports)'
end
