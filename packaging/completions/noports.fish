# fish completion for noports. The program itself says what can come next.

function __noports
    set -l word (commandline -ct)
    for line in (noports docs complete (commandline -opc) $word 2>/dev/null)
        if test "$line" = :files
            # Behind --flag= begins the file's name.
            set -l flag (string match -r -- '^--[^=]+=' $word)
            for path in (__fish_complete_path (string replace -r -- '^--[^=]+=' '' $word))
                echo "$flag$path"
            end
        else
            echo $line
        end
    end
end

for name in noports sshnp npt sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate
    complete --command $name --no-files --arguments '(__noports)'
end
