// SPDX-License-Identifier: MIT
// Doubles of Polymarket's contracts for the local chain: the published signatures and the documented behaviour, nothing
// of their code. Each is placed at its real Polygon address; what they know of each other are these addresses, so that
// none needs a constructor.
pragma solidity 0.8.30;

address constant CTF = 0x4D97DCd97eC945f40cF65F87097ACe5EA0476045;
address constant PUSD = 0xC011a7E12a19f7B1f670d46F03B03f3342E82DFB;
address constant USDCE = 0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174;
address constant WCOL = 0x3A3BD7bb9528E159577F7C2e685CC81A765002E2;
address constant MANAGER = 0x006F54F7f9A22e0000CC2AB60031000000ae9fEF;
address constant ROUTER = 0x12121212006e4CD160D18e3f00711DA5c3372600;
address constant PROXY_FACTORY = 0xaB45c5A4B0c941a2F231C04C3f49182e1A254052;
address constant PROXY_CODE = 0x44e999d5c2F66Ef0861317f9A4805AC2e90aEB4f;
address constant RELAY_HUB = 0xD216153c06E857cD7f72665E0aF1d7D82172F494;
address constant DEPOSIT_FACTORY = 0x00000000000Fb5C9ADea0298D729A0CB3823Cc07;
address constant DEPOSIT_CODE = 0x58CA52ebe0DadfdF531Cde7062e76746de4Db1eB;
address constant DEPOSIT_BEACON = 0x7A18EDfe055488A3128f01F563e5B479D92ffc3a;

interface IERC20 {
    function balanceOf(address) external view returns (uint256);
    function mint(address to, uint256 amount) external;
    function burn(address from, uint256 amount) external;
    function approve(address, uint256) external returns (bool);
    function transferFrom(address, address, uint256) external returns (bool);
}

interface ICTF {
    function balanceOf(address, uint256) external view returns (uint256);
    function getCollectionId(bytes32, bytes32, uint256) external view returns (bytes32);
    function getPositionId(address, bytes32) external view returns (uint256);
    function safeBatchTransferFrom(address, address, uint256[] calldata, uint256[] calldata, bytes calldata) external;
    function redeemPositions(address, bytes32, bytes32, uint256[] calldata) external;
    function splitPosition(address, bytes32, bytes32, uint256[] calldata, uint256) external;
    function mergePositions(address, bytes32, bytes32, uint256[] calldata, uint256) external;
}

/// pUSD, USDC.e and the wrapped collateral: six decimals, anybody may mint and burn.
contract Token {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    uint256 public totalSupply;
    uint8 public constant decimals = 6;
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function mint(address to, uint256 amount) external {
        totalSupply += amount;
        balanceOf[to] += amount;
        emit Transfer(address(0), to, amount);
    }

    function burn(address from, uint256 amount) external {
        totalSupply -= amount;
        balanceOf[from] -= amount;
        emit Transfer(from, address(0), amount);
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        return _move(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        require(allowance[from][msg.sender] >= value, "ERC20: transfer amount exceeds allowance");
        if (allowance[from][msg.sender] != type(uint256).max) allowance[from][msg.sender] -= value;
        return _move(from, to, value);
    }

    function _move(address from, address to, uint256 value) private returns (bool) {
        require(balanceOf[from] >= value, "ERC20: transfer amount exceeds balance");
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
        return true;
    }
}

/// Both collateral adapters: always the whole balance of both outcomes, whatever the other arguments say.
abstract contract Adapter {
    event PositionsRedeemed(address indexed redeemer, bytes32 indexed conditionId, uint256 payout);
    address public constant COLLATERAL_TOKEN = PUSD;
    address public constant CONDITIONAL_TOKENS = CTF;

    function _underlying() internal pure virtual returns (address);

    function USDCE() external pure returns (address) {
        return _underlying();
    }

    function paused(address) external pure returns (bool) {
        return false;
    }

    function _both() private pure returns (uint256[] memory sets) {
        sets = new uint256[](2);
        (sets[0], sets[1]) = (1, 2);
    }

    function _ids(bytes32 conditionId) private view returns (uint256[] memory ids) {
        ids = new uint256[](2);
        for (uint256 i = 0; i < 2; i++) {
            ids[i] = ICTF(CTF).getPositionId(_underlying(), ICTF(CTF).getCollectionId(0, conditionId, i + 1));
        }
    }

    function redeemPositions(address, bytes32, bytes32 conditionId, uint256[] calldata) external {
        uint256[] memory ids = _ids(conditionId);
        uint256[] memory amounts = new uint256[](2);
        for (uint256 i = 0; i < 2; i++) amounts[i] = ICTF(CTF).balanceOf(msg.sender, ids[i]);
        ICTF(CTF).safeBatchTransferFrom(msg.sender, address(this), ids, amounts, "");
        uint256 before = IERC20(_underlying()).balanceOf(address(this));
        ICTF(CTF).redeemPositions(_underlying(), 0, conditionId, _both());
        uint256 payout = IERC20(_underlying()).balanceOf(address(this)) - before;
        IERC20(_underlying()).burn(address(this), payout);
        if (payout > 0) IERC20(PUSD).mint(msg.sender, payout);
        emit PositionsRedeemed(msg.sender, conditionId, payout);
    }

    function splitPosition(address, bytes32, bytes32 conditionId, uint256[] calldata, uint256 amount) external {
        IERC20(PUSD).transferFrom(msg.sender, address(this), amount);
        IERC20(PUSD).burn(address(this), amount);
        IERC20(_underlying()).mint(address(this), amount);
        IERC20(_underlying()).approve(CTF, amount);
        ICTF(CTF).splitPosition(_underlying(), 0, conditionId, _both(), amount);
        uint256[] memory amounts = new uint256[](2);
        (amounts[0], amounts[1]) = (amount, amount);
        ICTF(CTF).safeBatchTransferFrom(address(this), msg.sender, _ids(conditionId), amounts, "");
    }

    function onERC1155Received(address, address, uint256, uint256, bytes calldata) external pure returns (bytes4) {
        return this.onERC1155Received.selector;
    }

    function onERC1155BatchReceived(address, address, uint256[] calldata, uint256[] calldata, bytes calldata)
        external
        pure
        returns (bytes4)
    {
        return this.onERC1155BatchReceived.selector;
    }

    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }
}

contract CtfCollateralAdapter is Adapter {
    function _underlying() internal pure override returns (address) {
        return USDCE;
    }
}

contract NegRiskCtfCollateralAdapter is Adapter {
    function _underlying() internal pure override returns (address) {
        return WCOL;
    }
}

/// The ledger of Protocol V2. `report` stands for its modules and oracles, `mint` for its router's split.
contract PositionManager {
    mapping(uint256 => mapping(address => uint256)) private _balances;
    mapping(address => mapping(address => bool)) public isApprovedForAll;
    mapping(bytes32 => uint256[2]) private _payouts;
    event TransferSingle(
        address indexed operator, address indexed from, address indexed to, uint256 id, uint256 value
    );
    event ApprovalForAll(address indexed account, address indexed operator, bool approved);

    function setApprovalForAll(address operator, bool approved) external {
        isApprovedForAll[msg.sender][operator] = approved;
        emit ApprovalForAll(msg.sender, operator, approved);
    }

    function balanceOf(address owner, uint256 id) public view returns (uint256) {
        return _balances[id][owner];
    }

    function balanceOfBatch(address[] calldata owners, uint256[] calldata ids)
        external
        view
        returns (uint256[] memory found)
    {
        found = new uint256[](ids.length);
        for (uint256 i = 0; i < ids.length; i++) found[i] = balanceOf(owners[i], ids[i]);
    }

    function mint(address to, uint256 id, uint256 amount) external {
        _balances[id][to] += amount;
        emit TransferSingle(msg.sender, address(0), to, id, amount);
    }

    function report(bytes32 conditionId, uint256 first, uint256 second) external {
        _payouts[conditionId] = [first, second];
    }

    function getPayout(uint256 positionId, uint256 amount) public view returns (uint256) {
        uint256[2] storage payouts = _payouts[bytes32(positionId & ~uint256(0xff))];
        require(payouts[0] + payouts[1] > 0, "UnresolvedCondition");
        return amount * payouts[positionId & 0xff] / (payouts[0] + payouts[1]);
    }

    function burn(address from, uint256 id, uint256 amount) external {
        require(isApprovedForAll[from][msg.sender], "NotApproved");
        require(_balances[id][from] >= amount, "InsufficientBalance");
        _balances[id][from] -= amount;
        emit TransferSingle(msg.sender, from, address(0), id, amount);
    }
}

contract Router {
    function redeem(bytes31 conditionId, uint256 outcomeIndex, uint256 amount) external {
        uint256 id = uint256(bytes32(conditionId)) | outcomeIndex;
        uint256 payout = PositionManager(MANAGER).getPayout(id, amount);
        PositionManager(MANAGER).burn(msg.sender, id, amount);
        if (payout > 0) IERC20(PUSD).mint(msg.sender, payout);
    }
}

struct ProxyCall {
    uint8 typeCode;
    address to;
    uint256 value;
    bytes data;
}

library Calls {
    function make(address to, uint256 value, bytes memory data) internal returns (bytes memory) {
        (bool ok, bytes memory answer) = to.call{value: value}(data);
        if (!ok) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
        return answer;
    }
}

abstract contract Receiver {
    receive() external payable {}

    function onERC1155Received(address, address, uint256, uint256, bytes calldata) external pure returns (bytes4) {
        return this.onERC1155Received.selector;
    }

    function onERC1155BatchReceived(address, address, uint256[] calldata, uint256[] calldata, bytes calldata)
        external
        pure
        returns (bytes4)
    {
        return this.onERC1155BatchReceived.selector;
    }

    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }
}

/// Makes proxy wallets with the init code that their addresses are derived from, and has them act for their owner.
contract ProxyWalletFactory {
    address private _owner;

    function cloneConstructor(bytes calldata) external {
        require(_owner == address(0), "already made");
        _owner = PROXY_FACTORY;
    }

    function proxy(ProxyCall[] calldata calls) external payable returns (bytes[] memory) {
        address owner = msg.sender;
        if (owner == RELAY_HUB) owner = address(bytes20(msg.data[msg.data.length - 20:]));
        address wallet = make(owner);
        return ProxyWallet(payable(wallet)).proxy(calls);
    }

    function make(address owner) public returns (address wallet) {
        bytes memory code = abi.encodePacked(
            hex"3d3d606380380380913d393d73",
            PROXY_FACTORY,
            hex"5af4602a57600080fd5b602d8060366000396000f3363d3d373d3d3d363d73",
            PROXY_CODE,
            hex"5af43d82803e903d91602b57fd5bf352e831dd",
            uint256(32),
            uint256(0)
        );
        bytes32 salt = keccak256(abi.encodePacked(owner));
        wallet = address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", address(this), salt, keccak256(code))))));
        if (wallet.code.length == 0) {
            address made;
            assembly {
                made := create2(0, add(code, 32), mload(code), salt)
            }
            require(made == wallet, "not made");
        }
    }
}

contract ProxyWallet is Receiver {
    function proxy(ProxyCall[] calldata calls) external payable returns (bytes[] memory answers) {
        require(msg.sender == PROXY_FACTORY, "must be called by owner");
        answers = new bytes[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            require(calls[i].typeCode == 1, "only calls");
            answers[i] = Calls.make(calls[i].to, calls[i].value, calls[i].data);
        }
    }
}

/// Stands for the hub that a relay sends through: it appends the signer to the call. Signatures and nonces are checked
/// by the local relayer.
contract RelayHub {
    mapping(address => uint256) public nonces;

    function relayCall(address from, address to, bytes calldata data) external {
        nonces[from]++;
        Calls.make(to, 0, abi.encodePacked(data, from));
    }
}

struct WalletCall {
    address target;
    uint256 value;
    bytes data;
}

struct Batch {
    address wallet;
    uint256 nonce;
    uint256 deadline;
    WalletCall[] calls;
}

/// Makes deposit wallets with the init code that their addresses are derived from. Its operator is whoever calls: only
/// the local relayer does.
contract DepositWalletFactory {
    event WalletFailed(address indexed wallet, bytes reason);

    function BEACON() external pure returns (address) {
        return DEPOSIT_BEACON;
    }

    function proxy(Batch[] calldata batches, bytes[] calldata signatures) external {
        for (uint256 i = 0; i < batches.length; i++) {
            DepositWallet(payable(batches[i].wallet)).execute(batches[i], signatures[i]);
        }
    }

    function make(address owner, bool beacon) external returns (address wallet) {
        bytes memory args = abi.encode(DEPOSIT_FACTORY, owner);
        bytes memory code = beacon
            ? abi.encodePacked(
                hex"6100923d8160233d3973",
                DEPOSIT_BEACON,
                hex"60195155f3363d3d373d3d363d602036600436635c60da",
                hex"1b60e01b36527fa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6c",
                hex"b3582b35133d50545afa5036515af43d6000803e604d573d6000fd5b3d6000f3",
                args
            )
            : abi.encodePacked(
                hex"61007d3d8160233d3973",
                DEPOSIT_CODE,
                hex"60095155f3363d3d373d3d363d7f360894a13ba1a3210667c828492db98dca3e2076",
                hex"cc3735a920a3ca505d382bbc545af43d6000803e6038573d6000fd5b3d6000f3",
                args
            );
        bytes32 salt = keccak256(args);
        assembly {
            wallet := create2(0, add(code, 32), mload(code), salt)
        }
        require(wallet != address(0), "not made");
    }
}

contract DepositBeacon {
    function implementation() external pure returns (address) {
        return DEPOSIT_CODE;
    }
}

contract DepositWallet is Receiver {
    uint256 public nonce;
    bytes32 private constant CALL_TYPE = keccak256("Call(address target,uint256 value,bytes data)");
    bytes32 private constant BATCH_TYPE = keccak256(
        "Batch(address wallet,uint256 nonce,uint256 deadline,Call[] calls)Call(address target,uint256 value,bytes data)"
    );
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    /// The last word of the wallet's own code, as its factory made it.
    function owner() public view returns (address who) {
        bytes memory code = address(this).code;
        assembly {
            who := mload(add(code, mload(code)))
        }
    }

    function execute(Batch calldata batch, bytes calldata signature) external {
        require(msg.sender == DEPOSIT_FACTORY, "only the factory");
        require(batch.wallet == address(this), "wrong wallet");
        require(batch.nonce == nonce, "wrong nonce");
        require(block.timestamp <= batch.deadline, "expired");
        bytes32[] memory hashes = new bytes32[](batch.calls.length);
        for (uint256 i = 0; i < hashes.length; i++) {
            WalletCall calldata call = batch.calls[i];
            hashes[i] = keccak256(abi.encode(CALL_TYPE, call.target, call.value, keccak256(call.data)));
        }
        bytes32 domain = keccak256(
            abi.encode(DOMAIN_TYPE, keccak256("DepositWallet"), keccak256("1"), block.chainid, address(this))
        );
        bytes32 struct_ = keccak256(
            abi.encode(
                BATCH_TYPE, address(this), batch.nonce, batch.deadline, keccak256(abi.encodePacked(hashes))
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domain, struct_));
        (bytes32 r, bytes32 s, uint8 v) = abi.decode(abi.encodePacked(signature[:64], bytes31(0), signature[64]), (bytes32, bytes32, uint8));
        require(ecrecover(digest, v, r, s) == owner(), "wrong signature");
        nonce++;
        for (uint256 i = 0; i < batch.calls.length; i++) {
            Calls.make(batch.calls[i].target, batch.calls[i].value, batch.calls[i].data);
        }
    }
}
